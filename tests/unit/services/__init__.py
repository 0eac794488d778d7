"""Services as text."""
