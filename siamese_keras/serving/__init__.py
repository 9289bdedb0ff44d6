"""The exported model: its signatures, its export, and clients that query it."""
