"""The stream transport: packets in frames, over the standard input and output of an ssh.

Owns the frames, the queue, the device and the pump of both ends; knows no ssh. All of them run
on the server too, as one text (``program``).
"""
