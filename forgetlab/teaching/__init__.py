"""What a course needs besides its labs: questions, terms, and exercises that diagnose."""

from forgetlab.teaching.glossary import table, terms
from forgetlab.teaching.quiz import ask, final_quiz

__all__ = ["ask", "final_quiz", "table", "terms"]
