"""What holds for all tests."""

import signal

# A shell without job control starts background jobs with SIGINT and SIGQUIT ignored, `nohup` any with
# SIGHUP ignored, and programs inherit that. Those under test are to be told all the same.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
