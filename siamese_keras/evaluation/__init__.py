"""Figures of verification and retrieval, and the report made of them."""
