"""syslogd.py SOCKET FILE: writes each message that arrives at SOCKET to FILE, a line each."""

import os
import socket
import sys

sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
with open(sys.argv[2], "ab", buffering=0) as file:
    while True:
        file.write(sock.recv(65536).replace(b"\n", b"\\n") + b"\n")
