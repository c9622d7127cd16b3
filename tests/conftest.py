"""What holds for all tests."""

import signal

# A shell without job control starts background jobs with SIGINT ignored, and programs inherit that.
# Those under test are to be interrupted all the same.
signal.signal(signal.SIGINT, signal.default_int_handler)
