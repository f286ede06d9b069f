"""What a course needs besides its labs: questions, terms, and exercises that diagnose."""

from forgetlab.teaching.glossary import table, terms
from forgetlab.teaching.quiz import ask, final_quiz
from forgetlab.teaching.shipped import results

__all__ = ["ask", "final_quiz", "results", "table", "terms"]
