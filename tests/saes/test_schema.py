"""The rows of the feature tables and the constants that readers rely on."""

from saes.features.schema import GROUPS


def test_groups_are_stored_in_the_order_shown():
    assert GROUPS == ("top", "q4", "q3", "q2", "q1")
