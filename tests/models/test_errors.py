import pytest

from hf_infomax.models.errors import UsageError, choose, unknown_name


def test_a_few_names_are_all_listed():
    assert str(unknown_name("layer", "con", ["conv", "fc"])) == "Unknown layer 'con': choose one of conv, fc."


def test_of_many_names_the_closest_are_offered():
    many = [f"resnet{size}" for size in range(100)]
    assert "did you mean resnet18" in str(unknown_name("backbone", "resnet18d", many))
    assert str(unknown_name("backbone", "zzz", many)) == "Unknown backbone 'zzz': 100 names are known."


def test_choose():
    assert choose("prior", "ball", {"ball": 1}) == 1
    with pytest.raises(UsageError, match="Unknown prior 'cube': choose one of ball"):
        choose("prior", "cube", {"ball": 1})


def test_it_is_a_value_error():
    assert issubclass(UsageError, ValueError)
