"""Errors that come out of another process."""

import pickle

import pytest
from torch._utils import ExceptionWrapper

from models import DataError

REASONS = ("the first", "another", "a third")


def test_reasons_survive_a_pool():
    error = pickle.loads(pickle.dumps(DataError(*REASONS)))
    assert error.reasons == list(REASONS)
    assert str(error) == "the first (2 more: scripts/check_data.sh CONFIG lists all)"
    assert str(pickle.loads(pickle.dumps(DataError("alone")))) == "alone"


def test_a_loader_passes_the_message_on():
    """torch makes the error anew, of a text."""
    try:
        raise DataError(*REASONS)
    except DataError:
        caught = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(DataError, match=r"DataError: the first \(2 more: "):
        caught.reraise()
