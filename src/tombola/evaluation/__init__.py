"""Evaluation: a model's answers to a task's examples."""

from tombola.evaluation.answer import answer
from tombola.evaluation.answer_file import AnswerFile
from tombola.evaluation.by_vllm import TOKENS_AT_ONCE, VllmFailed, Writer, vllm_writer
from tombola.evaluation.progress import evaluation_progress

__all__ = ["TOKENS_AT_ONCE", "AnswerFile", "VllmFailed", "Writer", "answer", "evaluation_progress", "vllm_writer"]
