"""Two finished models side by side: what was lost, how sure that is, where it happened, and what puts it right."""
