"""The stream transport: packets in frames, over the standard input and output of an ssh.

Owns the frames, the queue and the pump of both ends; knows no ssh. ``frames``, ``queues`` and
``pump`` run on the server too, as one text (``program``).
"""
