"""Labs that are played in the book's pages: recorded runs, drawn in the page without a kernel or a network."""
