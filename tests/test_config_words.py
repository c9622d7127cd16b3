"""The tables of sources say what their classes say: the same words, the same defaults, the same choices."""

import inspect
from typing import get_args

import msgspec
import pytest

from token_keeper.sidecar.config import _source_model as model
from token_keeper.sources import CommandSource, FileSource, HttpSource, OAuth2Source, SignedJwt
from token_keeper.sources import _outputs as outputs
from token_keeper.sources.oauth2 import _authentication as authentication
from token_keeper.sources.oauth2 import _forms as forms
from token_keeper.sources.oauth2 import _words as words

TABLES = {
    model.HttpSourceConfig: HttpSource,
    model.OAuth2SourceConfig: OAuth2Source,
    model.CommandSourceConfig: CommandSource,
    model.FileSourceConfig: FileSource,
    model.BearerJwtConfig: SignedJwt,
}
OF_PROGRAMS = {"auth", "client", "store", "stored_as"}
"""What only a program can hand over."""
OF_FILES = {"bearer_jwt", "keep"}
"""What a file says instead."""
CHOICES = {
    model.GrantName: forms.GRANT_TYPES,
    model.AuthMethod: authentication.METHODS,
    model.Revoked: words.REVOKED,
    model.CommandFormat: outputs.FORMATS,
}


def defaults_of_table(table):
    """Return the defaults of *table* by word; a word that is required is its own."""
    fields = msgspec.structs.fields(table)
    return {field.name: field.name if field.required else field.default for field in fields}


def defaults_of_class(source):
    """Return the same of the keywords of *source*."""
    words = inspect.signature(source).parameters.values()
    return {word.name: word.name if word.default is word.empty else word.default for word in words}


@pytest.mark.parametrize("table", TABLES, ids=[table.__name__ for table in TABLES])
def test_a_table_has_the_words_and_the_defaults_of_its_class(table):
    in_the_file = defaults_of_table(table)
    in_programs = defaults_of_class(TABLES[table])

    assert {word: in_the_file[word] for word in in_the_file.keys() - OF_FILES} == {
        word: in_programs[word] for word in in_programs.keys() - OF_PROGRAMS
    }


@pytest.mark.parametrize("choice", CHOICES, ids=["grant", "auth_method", "revoke", "format"])
def test_a_table_offers_what_its_class_knows(choice):
    assert get_args(choice) == tuple(CHOICES[choice])
