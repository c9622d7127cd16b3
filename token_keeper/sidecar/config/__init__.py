"""The configuration file: read, checked as a whole, turned into parts."""
