"""What a worker is told of its code locations."""

import pytest

from dagster_taskiq_kit.code_locations.code_location import CodeLocation, with_options
from dagster_taskiq_kit.vocabulary.errors import ConfigurationError

ETL, ML = CodeLocation("etl", "{}", None), CodeLocation("ml", "{}", None)


def test_what_is_said_of_one_location_is_over_what_is_said_of_all():
    etl, ml = with_options(
        [ETL, ML], warm=["never", "ml=always"], reload=["etl=told"], max_code_age=["60"]
    )
    assert (etl.warm, etl.reload, etl.max_code_age_s) == ("never", "told", 60)
    assert (ml.warm, ml.reload, ml.max_code_age_s) == ("always", "auto", 60)
    assert with_options([ETL], max_code_age=["0"])[0].max_code_age_s == 0
    assert list(with_options([ETL, ML])) == [ETL, ML]


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"warm": ["etl=hot"]}, "--warm: there is no 'hot'. Say auto, always or never"),
        ({"warm": ["dwh=never"]}, "There is no code location 'dwh'"),
        ({"reload": ["always"]}, "--reload: there is no 'always'. Say auto, told or never"),
        ({"max_code_age": ["etl=soon"]}, "--max-code-age is 'soon': it must be"),
        ({"max_code_age": ["-1"]}, "--max-code-age is '-1': it must be"),
        ({"max_code_age": ["nan"]}, "--max-code-age is 'nan': it must be"),
    ],
)
def test_what_can_never_work_is_one_sentence(said, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        with_options([ETL], **said)
