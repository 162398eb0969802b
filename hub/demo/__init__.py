"""The demo: a day and its worst half hour, played by real processes on loopback.

world   starts the hub and its peers and introduces them to each other
day     the quiet hours before: a home, a client's office, a flight
story   what happens, and what must be true after each step
play    runs the story and prints the timeline
"""
