"""The tool that changes the code: what it changes, and that it tells who has survived."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from . import __main__ as program
from .__main__ import JUDGED, ROOT, Copy, files_of, judged, main, places_in
from .mutate import mutants_of, names_of
from .packages import EVERYWHERE, TESTS, nearest_first, paths_for


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("a < b", {"a < b -> (a <= b)", "a < b -> pass"}),
        ("x = a < b <= c", {"a < b <= c -> (a <= b <= c)", "a < b <= c -> (a < b < c)"}),
        ("x = a is None", {"a is None -> (a is not None)"}),
        ("x = a and not b", {"a and not b -> (a or not b)", "not b -> (b)"}),
        ("x = True", {"True -> (False)"}),
        ("x = 64", {"64 -> (65)"}),
        ("x = -1", {"-1 -> (1)"}),
        ("x = a + b", {"a + b -> (a - b)"}),
        ("x += a", {"x += a -> x -= a", "x += a -> pass"}),
        ("self.x = y", {"self.x = y -> pass"}),
        ("if a: b = c", {"a -> (not a)"}),
        ("x = a if f() else b", {"f() -> (not f())"}),
        ("raise Error(a)", {"raise Error(a) -> pass"}),
        ("for _ in a: break", {"break -> pass"}),
        ("while a: continue", {"a -> (not a)", "continue -> pass"}),
        ("del a[b]", {"del a[b] -> pass"}),
    ],
)
def test_each_kind_of_change(source: str, names: set[str]) -> None:
    assert {f"module: {name}" for name in names} == {mutant.name for mutant in mutants_of(source)}


def test_a_function_returns_nothing_and_takes_by_place_what_is_to_be_named() -> None:
    found = mutants_of("class A:\n    async def f(self, a, *, b=None):\n        return a\n")
    assert [mutant.name for mutant in found] == ["A.f: *, -> nothing", "A.f: return a -> return None"]
    assert "def f(self, a,  b=None)" in found[0].source
    assert found[1].source.endswith("        return None\n")


@pytest.mark.parametrize(
    "source",
    [
        '"""Words: 1 < 2."""',
        'x = "words"',
        'x = f"{a < b}"',
        "x: Literal[3]",
        "def f(a: Literal[3]) -> Literal[3]: pass",
        "assert a < b",
        "@abc.abstractmethod\ndef f(): return 3",
        "if TYPE_CHECKING:\n    x = 3",
        f'if sys.platform != "{sys.platform}":\n    x = 3',
        f'assert sys.platform != "{sys.platform}", "elsewhere"\nx = 3',
        f'if sys.platform == "{sys.platform}":\n    raise ImportError("elsewhere")\nx = 3',
        f'x = 3 if sys.platform != "{sys.platform}" else "words"',
        "def f(*, a): pass",
    ],
)
def test_what_no_test_could_see_is_not_changed(source: str) -> None:
    assert [mutant.name for mutant in mutants_of(source)] == []


def test_letters_that_are_several_bytes_do_not_shift_the_change() -> None:
    (mutant,) = mutants_of('x = "ü", 3\n')
    assert mutant.source == 'x = "ü", (4)\n'


def test_two_alike_have_two_names() -> None:
    assert [*names_of(mutants_of("x = 1, 1"))] == ["module: 1 -> (2)", "module: 1 -> (2) (2)"]


def test_all_mutants_of_this_project_can_be_compiled_and_have_names_of_their_own() -> None:
    for package in ("trio_ipc.wire", "trio_ipc.server"):
        places = [*places_in(ROOT, package)]
        assert len(places) > 50
        assert len({(place.file, place.name) for place in places}) == len(places)
        for place in places[::10]:
            compile(place.mutant.source, place.name, "exec", dont_inherit=True)


def test_what_only_this_package_calls_may_be_called_in_any_way() -> None:
    by_place = {place.name for place in places_in(ROOT, "trio_ipc.testing") if place.mutant.before == "*,"}
    assert {"open_pair: *, -> nothing", "Faults.__init__: *, -> nothing"} <= by_place
    assert not by_place & {"SocketBuffer.__init__: *, -> nothing", "FaultScript.__init__: *, -> nothing"}
    assert not [name for name in by_place if "._" in name and ".__init__" not in name]


def test_the_paths_for_every_package_are_there() -> None:
    for package in TESTS:
        assert (ROOT / package.replace(".", "/")).exists() or files_of(ROOT, package)[0].exists(), package
        for path in paths_for(package, ROOT):
            assert (ROOT / path).exists(), path
    assert paths_for("trio_ipc.server.watch", ROOT) == (*TESTS["trio_ipc.server"], *EVERYWHERE)


def test_a_package_that_nobody_has_listed_is_tested_where_its_name_says(tmp_path: Path) -> None:
    (tmp_path / "tests" / "new").mkdir(parents=True)
    assert paths_for("trio_ipc.new.part", tmp_path) == ("tests/new", *EVERYWHERE)
    with pytest.raises(KeyError):
        paths_for("trio_ipc.other", tmp_path)


def test_the_tests_that_are_nearest_to_a_change_run_first_and_none_is_left_out(tmp_path: Path) -> None:
    tests = {
        "test_deep.py": "",
        "test_binding.py": "",
        "test_made.py": "from trio_ipc.package.unix_binding import Socket",
        "test_said.py": "Socket()",
        "test_unix_binding.py": "",
    }
    (tmp_path / "tests" / "package").mkdir(parents=True)
    for name, text in tests.items():
        (tmp_path / "tests" / "package" / name).write_text(text)
    (tmp_path / "tests" / "test_all.py").write_text("")
    paths = ("tests/package", "tests/test_all.py", "tests/test_all.py::test_one")
    found = nearest_first(paths, tmp_path, Path("trio_ipc/package/unix_binding.py"), "Socket.close")
    assert found == [
        "tests/package/test_unix_binding.py",
        "tests/package/test_made.py",
        "tests/package/test_said.py",
        "tests/package/test_binding.py",
        "tests/package/test_deep.py",
        "tests/test_all.py",
        "tests/test_all.py::test_one",
    ]


def test_what_was_judged_is_still_there_and_has_a_reason() -> None:
    known = judged()
    there = {
        (place.file.as_posix(), place.name)
        for file in {file for file, _ in known}
        for place in places_in(ROOT, file.removesuffix(".py").replace("/", "."))
    }
    assert {*known} - there == set(), f"take them out of {JUDGED.name}"
    assert all(known.values())


# --- As a whole ---------------------------------------------------------------------------------------------

needs_groups = pytest.mark.skipif(sys.platform == "win32", reason="it ends what hangs by Unix's groups")


@pytest.fixture(autouse=True)
def _few_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each run of tests begin without what its tests do not use, which is most of what it takes."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "_hypothesis_pytestplugin")


CODE = "def half(number):\n    if number < 0:\n        raise ValueError\n    return number / 2\n"


def a_tree(directory: Path, tests: str) -> Path:
    (directory / "trio_ipc").mkdir()
    (directory / "tests").mkdir()
    (directory / "trio_ipc" / "__init__.py").write_text("")
    (directory / "trio_ipc" / "half.py").write_text(CODE)
    (directory / "tests" / "test_half.py").write_text(tests)
    return directory


@needs_groups
def test_a_copy_has_the_pages_that_tests_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else these tests fail by themselves there, and each mutant seems to be noticed."""
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    monkeypatch.delenv("PYTEST_PLUGINS")
    tests = ("tests/testing/test_conformance_rules.py", "tests/daemoneye/test_contract.py")
    status, said = Copy(ROOT, tmp_path).run(tests)
    assert status == 0, said


@needs_groups
def test_it_tells_who_has_survived(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tests = "from trio_ipc.half import half\n\ndef test_half():\n    assert half(4) == 2\n"
    root = a_tree(tmp_path, tests)
    assert main(["--module", "trio_ipc.half", "--tests", "tests"], root) == 1
    said = capsys.readouterr().out.splitlines()
    survived = [line for line in said if line.startswith("survived")]
    assert survived == [
        "survived: trio_ipc/half.py:2 half: number < 0 -> (number <= 0)",
        "survived: trio_ipc/half.py:2 half: 0 -> (1)",
        "survived: trio_ipc/half.py:3 half: raise ValueError -> pass",
    ]
    assert said[-1] == "trio_ipc.half: 3 of 6 killed, 50%; 0 judged to change nothing"
    assert (root / "trio_ipc" / "half.py").read_text() == CODE


@needs_groups
def test_one_seed_is_one_choice_and_where_all_are_noticed_all_is_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tests = (
        "import pytest\nfrom trio_ipc.half import half\n\ndef test_half():\n    assert half(4) == 2\n"
        "    assert half(0) == 0\n    with pytest.raises(ValueError):\n        half(-1)\n"
    )
    root = a_tree(tmp_path, tests)
    choice = ["--module", "trio_ipc.half", "--tests", "tests", "--sample", "2", "--seed", "7"]
    assert main([*choice, "--list"], root) == 0
    listed = capsys.readouterr().out.splitlines()
    assert main(choice, root) == 0
    said = capsys.readouterr().out.splitlines()
    assert listed[0] == said[0] == "seed 7"
    assert [line.partition(" ")[2].partition(": FAILED")[0] for line in said[1:3]] == listed[1:]


@needs_groups
def test_tests_that_fail_by_themselves_say_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = a_tree(tmp_path, "def test_half():\n    assert 0\n")
    assert main(["--module", "trio_ipc.half", "--tests", "tests"], root) == 2
    assert "the tests fail as they are" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--module", "trio_ipc.nothing"], "there is no such module"),
        (["--module", "tests.support"], "say which by --tests"),
        ([], "--module"),
    ],
)
def test_a_mistake_is_told(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert told in capsys.readouterr().err


def test_a_module_is_one_file_and_a_package_all_of_its_files() -> None:
    assert files_of(ROOT, "trio_ipc.wire.framing") == [Path("trio_ipc/wire/framing.py")]
    assert Path("trio_ipc/wire/framing.py") in files_of(ROOT, "trio_ipc.wire")


@needs_groups
def test_several_modules_have_a_score_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = a_tree(tmp_path, "from trio_ipc.half import half\n\ndef test_half():\n    assert half(4) == 2\n")
    (root / "trio_ipc" / "one.py").write_text("ONE = 1\n")
    choice = ["--module", "trio_ipc.one", "trio_ipc.half", "--tests", "tests", "--match", "1"]
    tests = "from trio_ipc.one import ONE\n\ndef test():\n    assert ONE == 1\n"
    (root / "tests" / "test_one.py").write_text(tests)
    assert main([*choice, "--list"], root) == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed == ["trio_ipc/one.py:1 module: 1 -> (2)", "trio_ipc/half.py:2 half: 0 -> (1)"]
    assert main(choice, root) == 1
    scores = [line.partition("%")[0] for line in capsys.readouterr().out.splitlines() if "judged" in line]
    assert scores == ["trio_ipc.one: 1 of 1 killed, 100", "trio_ipc.half: 0 of 1 killed, 0"]


@needs_groups
def test_a_test_that_hangs_is_not_waited_for_longer_than_a_test_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tests = (
        "import time\nfrom trio_ipc.half import half\n\ndef test_half():\n"
        "    while half(4) != 2:\n        time.sleep(1)\n"
    )
    root = a_tree(tmp_path, tests)
    options = [one.replace("faulthandler_timeout=45", "faulthandler_timeout=1") for one in program._PYTEST]
    monkeypatch.setattr(program, "_PYTEST", options)
    assert main(["--module", "trio_ipc.half", "--tests", "tests", "--match", "return"], root) == 0
    assert "return number / 2 -> return None: exit status 1" in capsys.readouterr().out
