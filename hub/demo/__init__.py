"""The demo: a day's worst half hour, played by real processes on loopback.

world   starts the hub and its peers and introduces them to each other
story   what happens, and what must be true after each step
play    runs the story and prints the timeline
"""
