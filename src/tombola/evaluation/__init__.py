"""Evaluation: a model's answers to a task's examples."""

from tombola.evaluation.answer import answer
from tombola.evaluation.answer_file import AnswerFile
from tombola.evaluation.progress import evaluation_progress

__all__ = ["AnswerFile", "answer", "evaluation_progress"]
