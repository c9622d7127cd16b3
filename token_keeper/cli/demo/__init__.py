"""`token-keeper demo`: a keeper at work among faults, all of them real."""
