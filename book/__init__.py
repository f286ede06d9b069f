"""The page of the book in which a model trains: a program in C, the page around it, and what puts both together."""
