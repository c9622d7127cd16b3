// The page: trades the code for a key, listens, asks, and has the parts drawn.

import { mark, make, say, show } from './elements.js';
import { Known } from './known.js';
import { Picture, listEvents } from './picture.js';
import { Rows, choose, sayHowMany } from './rows.js';
import { Stream } from './stream.js';
import { clockTime, count, trouble, verdict, visible } from './words.js';

const LEVELS = ['well', 'trouble', 'down', 'unknown'];
const UNKNOWN = 3;
const RUN = 'On the machine of the sidecar, run:';
const POLL_S = 15;
const SETTLE_S = 0.25;
const PICTURE_S = 5;
const PICTURE_MIN_S = 0.5;
const TIMEOUT_S = 20;
const SEARCH_FROM = 8;

const ICONS = [
  "circle cx='8' cy='8' r='7' fill='%231b9a5d'",
  "path d='M8 1l7.5 14H.5z' fill='%23c77700'",
  "path d='M2 2h12v12H2z' fill='%23d03a30'",
  "circle cx='8' cy='8' r='7' fill='%23707882'",
];

const at = (id) => document.getElementById(id);
const rows = new Rows(at('rows'));
const picture = new Picture({
  place: at('picture'),
  legend: at('legend'),
  caption: at('past-says'),
  tip: at('tip'),
});

let known = new Known();
let stream = null;
let ask = null;
let link = { state: 'connecting', since: 0 };
let pollTimer = 0;
let pollTook = 0;
let pictureDrawnAt = 0;
let pictureDueAt = 0;
let isDrawing = false;
let restsUntil = 0;
let told = '';

// Trades *code*, which works once, for a key, and shows what that key may read.
export async function begin(code) {
  // A page that is live needs no other key.
  if (link.state === 'live') return;
  if (!code) {
    gate('Open it from the terminal', `This page has no key. It was opened without a code, or it was reloaded. ${RUN}`);
    return;
  }
  setLink('connecting');
  try {
    const body = JSON.stringify({ code });
    const headers = { 'Content-Type': 'application/json' };
    const signal = AbortSignal.timeout(TIMEOUT_S * 1000);
    const answer = await request('/v1/dashboard/keys', { method: 'POST', headers, body, signal });
    if (!answer.ok) {
      gate('This code is used or too old', `A code works once, and for a minute. ${RUN}`);
      return;
    }
    const { key } = await answer.json();
    // Only this function holds the key: it is in no element, no storage and no cookie.
    stop();
    ask = (path, { headers: more, ...options }) =>
      request(path, { ...options, headers: { ...more, Authorization: `Bearer ${key}` } });
  } catch {
    gate('The sidecar does not answer', `It is not running, or it no longer listens here. Start it. Then: ${RUN}`);
    return;
  }
  known = new Known();
  stream = new Stream({ ask, onEvent: heard, onState: streamed });
  stream.run();
}

function request(path, options) {
  return fetch(path, { cache: 'no-store', credentials: 'omit', redirect: 'error', ...options });
}

function heard({ kind, id, data }) {
  const said = JSON.parse(data);
  if (kind === 'snapshot') {
    if (known.take(said)) announce('The sidecar was restarted.');
    poll(POLL_S);
  } else if (known.hear({ ...said, kind }, id)) {
    poll(Math.max(SETTLE_S, 20 * pollTook));
  }
  pictureDueAt = Math.min(pictureDueAt, pictureDrawnAt + PICTURE_MIN_S * 1000);
  soon();
}

function streamed(state) {
  if (state === 'ended') {
    const why = link.state === 'lost' ? 'The sidecar was restarted' : 'This page\u2019s key is no longer valid';
    stop();
    gate(why, `The key of this page ended. ${RUN}`);
  } else setLink(state);
  soon();
}

function stop() {
  stream?.close();
  ask = null;
  clearTimeout(pollTimer);
  pollTimer = 0;
}

// Asks for the document after *wait* seconds, or earlier if that was planned.
let pollAt = Infinity;
function poll(wait) {
  const due = performance.now() / 1000 + wait;
  if (pollTimer && pollAt <= due) return;
  clearTimeout(pollTimer);
  pollAt = due;
  pollTimer = setTimeout(refetch, wait * 1000);
}

async function refetch() {
  pollTimer = 0;
  pollAt = Infinity;
  if (!ask) return;
  if (document.hidden) {
    poll(POLL_S);
    return;
  }
  const asked = performance.now() / 1000;
  const mine = known;
  try {
    const answer = await ask('/v1/tokens', { signal: AbortSignal.timeout(TIMEOUT_S * 1000) });
    if (answer.status === 401 || answer.status === 403) streamed('ended');
    if (answer.ok) {
      const document_ = await answer.json();
      if (mine !== known) return;
      known.take(document_, { date: answer.headers.get('Date'), asked });
    }
  } catch {
    // The stream notices too, and says so.
  }
  pollTook = performance.now() / 1000 - asked;
  poll(POLL_S);
  soon();
}

function gate(title, says) {
  say(at('gate-title'), title);
  say(at('gate-says'), says);
  show(at('gate'), true);
  show(at('board'), false);
  document.title = `${title} · token_keeper`;
  setLink('closed');
  announce(title);
}

function setLink(state) {
  if (link.state === state) return;
  // "Since" is when it was lost, not when the last try failed.
  link = { state, since: known.now() };
  tellLink();
}

function tellLink() {
  const { state, since } = link;
  const now = known.now();
  const lost = `Reconnecting since ${clockTime(since, now)}`;
  const words = { connecting: 'Connecting', live: 'Live', closed: 'Not connected', lost };
  mark(at('link'), 'state', state);
  say(at('link-says'), words[state]);
  show(at('again'), state === 'lost');
}

function announce(text) {
  if (told === text) return;
  told = text;
  say(at('news'), text);
}

// Draws once for any number of events in a frame, and spends at most a fifth of the time on it.
function soon() {
  if (isDrawing || performance.now() < restsUntil) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    const began = performance.now();
    isDrawing = false;
    redraw();
    const took = performance.now() - began;
    if (took < 16) return;
    restsUntil = began + 5 * took;
    setTimeout(soon, 4 * took);
  });
}

function redraw() {
  if (!ask || !(known.hasCome || link.state === 'lost')) return;
  const now = known.now();
  show(at('gate'), false);
  show(at('board'), true);
  at('board').classList.toggle('old', link.state !== 'live');
  const choice = choose(known.rows, now, at('search').value);
  tellVerdict(now);
  show(at('empty'), known.hasCome && known.rows.length === 0);
  show(at('past'), known.rows.length > 0);
  show(at('present'), known.rows.length > 0);
  show(at('search-box'), known.rows.length >= SEARCH_FROM);
  sayHowMany(at('present-says'), choice, known.rows.length);
  rows.update(choice.shown, now, (row) => known.began(row));
  if (performance.now() >= pictureDueAt) redrawPicture(choice, now);
}

function redrawPicture(choice, now) {
  pictureDrawnAt = performance.now();
  pictureDueAt = pictureDrawnAt + PICTURE_S * 1000;
  known.age();
  const eventsOf = (name) => known.eventsOf(name);
  picture.update({ rows: choice.shown, found: choice.found, eventsOf, startedAt: known.startedAt, now });
  listEvents(at('events'), at('log').open ? known.events() : [], now);
}

function tellVerdict(now) {
  const found = link.state === 'lost' ? lostVerdict(now) : verdict(known, now);
  const troubled = known.rows.filter((row) => trouble(row, now).level).length;
  mark(at('verdict'), 'level', LEVELS[found.level]);
  say(at('verdict-title'), found.title);
  const place = at('verdict-says');
  while (place.children.length > found.says.length) place.lastElementChild.remove();
  found.says.forEach((line, i) => tellLine(place.children[i] ?? place.appendChild(newLine()), line));
  const version = known.version ? `token_keeper ${known.version}, ` : '';
  say(at('verdict-about'), known.startedAt === null ? '' : `${version}running since ${clockTime(known.startedAt, now)}`);
  const icon = iconOf(found.level);
  if (at('icon').getAttribute('href') !== icon) at('icon').setAttribute('href', icon);
  document.title = `${found.title}${troubled ? ` (${troubled})` : ''} · token_keeper`;
  const many = troubled ? ` ${count(troubled, 'token is', 'tokens are')} in trouble.` : '';
  announce(`${found.title}.${many}`);
}

// The tab shows the verdict too, by shape and by colour.
function iconOf(level) {
  const xmlns = 'http://www.w3.org/2000/svg';
  return `data:image/svg+xml,%3Csvg xmlns='${xmlns}' viewBox='0 0 16 16'%3E%3C${ICONS[level]}/%3E%3C/svg%3E`;
}

function newLine() {
  const name = make('button', 'to');
  name.type = 'button';
  name.addEventListener('click', () => rows.goTo(name.dataset.name));
  return make('p', '', name, make('span'));
}

function tellLine(line, { name = '', text }) {
  const [to, rest] = line.children;
  show(to, name !== '');
  mark(to, 'name', name);
  say(to, visible(name));
  say(rest, name ? ` ${text}` : text);
}

function lostVerdict(now) {
  const since = clockTime(link.since, now);
  const text = known.hasCome
    ? `The sidecar has not answered since ${since}. Below is what was known then; times run on.`
    : 'The sidecar does not answer. It is asked again and again.';
  return { level: UNKNOWN, title: 'Not known', says: [{ text }] };
}

at('search').addEventListener('input', () => {
  pictureDueAt = 0;
  soon();
});
at('again').addEventListener('click', () => stream?.hurry());
at('log').addEventListener('toggle', () => {
  pictureDueAt = 0;
  soon();
});
addEventListener('online', () => stream?.hurry());
document.addEventListener('visibilitychange', () => {
  if (document.hidden) return;
  stream?.hurry();
  poll(0);
});
new ResizeObserver(() => {
  pictureDueAt = 0;
  soon();
}).observe(at('picture'));
setInterval(() => document.hidden || soon(), 1000);
