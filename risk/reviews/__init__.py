"""Sessions that have to be judged without a request: noted by signals, worked off by an api."""
