"""`token-keeper run`: a program with a token that stays valid."""
