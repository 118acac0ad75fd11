"""Starts a program on a stdout and stderr that are full and that nobody reads."""

import os
import sys

read, write = os.pipe()
os.set_blocking(write, False)
while True:
    try:
        os.write(write, b"." * 65_536)
    except BlockingIOError:
        break
os.set_blocking(write, True)
os.set_inheritable(read, True)  # somebody holds its other end, as a stuck log shipper does
os.dup2(write, 1)
os.dup2(write, 2)
os.execvp(sys.argv[1], sys.argv[1:])
