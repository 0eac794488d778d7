"""Our agent on the server, as it is talked to: the conversation, and what its errors mean."""
