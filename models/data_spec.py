"""What a user may ask of data files: which, for what task, how lenient, cleaned how.

A job's request has these fields (`models/spec.py`), and so has a validation's, so that both are
checked by the same code and one can stand for the other.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

FileName = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
"""A file's id, or where else the data comes from (`models/sources.py`)."""


class Strict(BaseModel):
    """Refuses names it does not know: a misspelt hyperparameter must not be silently ignored."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Cleaning(Strict):
    """Changes to the data, none of them made unasked. Each is counted in the report."""

    trim: bool = False
    """Take blanks before and after texts away."""
    normalize: Literal["NFC", "NFKC"] | None = None
    """Bring texts into a Unicode normal form."""
    dedupe: bool = False
    """Leave training rows out whose input an earlier one has."""
    split: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """The share of training rows to validate on, of each label alike, where no validation file
    is given."""
    balance: Literal["undersample", "oversample"] | None = None
    """Make the classes of the training rows as large as the smallest, or as the largest."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Of the choice of rows in `split` and `balance`."""

    def of_texts(self) -> Cleaning:
        """The part that validation rows go through as well."""
        return Cleaning(trim=self.trim, normalize=self.normalize)


class DataChoices(Strict):
    """The files of a job or a validation, and how they are read."""

    training_file: FileName
    validation_file: FileName | None = None
    task: str | None = None
    column_mapping: Annotated[dict[str, str], Field(max_length=64)] | None = None
    skip_invalid: Annotated[float, Field(ge=0, le=0.05)] | None = None
    """The share of a file's rows that may be bad: they are left out and listed."""
    cleaning: Cleaning | None = None

    @model_validator(mode="after")
    def _one_source_of_validation_rows(self) -> DataChoices:
        if self.validation_file is not None and self.cleaning is not None and self.cleaning.split:
            raise ValueError(
                "`cleaning.split` makes validation rows of training rows; with a "
                "`validation_file` there are some already. Leave one of them out."
            )
        return self

    @property
    def mends(self) -> bool:
        """Whether this reads a file in another way than by default, and so may well take one
        that does not pass by itself."""
        return bool(self.task or self.column_mapping or self.skip_invalid)

    @property
    def validates(self) -> bool:
        """Whether there will be validation rows."""
        return bool(self.validation_file or (self.cleaning and self.cleaning.split))

    def digest(self, training_sha256: str, validation_sha256: str | None) -> str:
        """Equal for equal contents read in the same way, but for the task."""
        parts = [
            training_sha256,
            validation_sha256,
            self.column_mapping or {},
            self.skip_invalid or 0.0,
            (self.cleaning or Cleaning()).model_dump(),
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class ValidationRequest(DataChoices):
    """The body of POST /v1/fine_tuning/validations."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    """The model that is to be trained: the report counts its tokens and shows rows as it sees
    them."""
