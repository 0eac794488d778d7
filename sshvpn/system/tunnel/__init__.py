"""The carriers of packets: the transports ``w`` and ``stream``, and the choice between them."""
