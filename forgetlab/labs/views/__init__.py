"""The labs' pictures."""
