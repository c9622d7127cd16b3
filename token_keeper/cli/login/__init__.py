"""`token-keeper login`: a person approves, at another page, that this machine gets tokens."""
