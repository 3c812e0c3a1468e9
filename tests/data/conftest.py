import pytest

from tests.data.serving import Project


@pytest.fixture(scope="session")
def origin(tmp_path_factory):
    """A copy of the repository, to be cloned."""
    return Project.copied(tmp_path_factory.mktemp("origin"))
