/* A load for HTTP servers on loopback: keep-alive, one request in flight on each connection.
 *
 *   load unix PATH|tcp PORT CONNECTIONS SECONDS < REQUEST
 *
 * Prints: answers, seconds, p50 and p99 of the time from request to complete answer in us, errors.
 * An answer is complete when as many bytes came as the first answer had.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MOST 256
#define SLOTS 200000 /* One for each half microsecond up to a tenth of a second. */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int dial(const char *family, const char *where) {
    int fd;
    if (!strcmp(family, "unix")) {
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        strncpy(to.sun_path, where, sizeof to.sun_path - 1);
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&to, sizeof to)) { perror("connect"); exit(1); }
        return fd;
    }
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(where))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) { perror("connect"); exit(1); }
    return fd;
}

static unsigned counts[SLOTS];

static double percentile(long total, double share) {
    long seen = 0, wanted = (long)(total * share);
    for (int i = 0; i < SLOTS; i++)
        if ((seen += counts[i]) > wanted) return i / 2.0;
    return SLOTS / 2.0;
}

int main(int argc, char **argv) {
    static char request[65536], answer[1 << 20];
    if (argc != 5) { fprintf(stderr, "usage: load unix|tcp WHERE CONNECTIONS SECONDS < REQUEST\n"); return 64; }
    size_t length = fread(request, 1, sizeof request, stdin);
    int connections = atoi(argv[3]), queue = epoll_create1(0), fds[MOST];
    double sent[MOST], seconds = atof(argv[4]);
    long got[MOST] = {0}, answers = 0, errors = 0;

    int first = dial(argv[1], argv[2]);
    if (write(first, request, length) < 0) { perror("write"); return 1; }
    usleep(200000); /* Whoever needs longer for one answer is not measured here. */
    long size = read(first, answer, sizeof answer);
    if (size < 12 || strncmp(answer + 9, "200", 3)) { fprintf(stderr, "not 200: %.60s\n", answer); return 1; }
    close(first);

    for (int i = 0; i < connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        fds[i] = dial(argv[1], argv[2]);
        epoll_ctl(queue, EPOLL_CTL_ADD, fds[i], &event);
    }
    double began = now(), until = began + seconds;
    for (int i = 0; i < connections; i++) { sent[i] = now(); if (write(fds[i], request, length) < 0) errors++; }
    while (now() < until) {
        struct epoll_event events[MOST];
        int ready = epoll_wait(queue, events, MOST, 100);
        for (int k = 0; k < ready; k++) {
            int i = events[k].data.u32;
            long bytes = read(fds[i], answer, sizeof answer);
            if (bytes <= 0) { errors++; epoll_ctl(queue, EPOLL_CTL_DEL, fds[i], NULL); continue; }
            if ((got[i] += bytes) < size) continue;
            if (got[i] != size) errors++;
            got[i] = 0;
            double at = now();
            long slot = (long)((at - sent[i]) * 2e6);
            counts[slot < SLOTS ? slot : SLOTS - 1]++;
            answers++;
            sent[i] = at;
            if (write(fds[i], request, length) < 0) errors++;
        }
    }
    printf("%ld %f %f %f %ld\n", answers, now() - began, percentile(answers, 0.5), percentile(answers, 0.99), errors);
    return 0;
}
