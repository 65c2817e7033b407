"""The harness of make test-kernels must not call a bad kernel good."""

import pytest

from kernels import report

GOOD = """\
[    0.291735] PCI: Fatal: No config space access function found
kernel 6.1.0-50-cloud-amd64
program from_pod 15000 80123 900 7051
run from_pod arp 0
run from_pod tcp4 2
attached from_pod clsact drops
program to_pod 14000 70123 800 6051
run to_pod tcp4 2
attached to_pod clsact drops
done
[    1.248666] reboot: Power down
"""

UNFINISHED = "the guest did not come to its end; the last line is:"

PAGE = f"above\n{report.BEGIN}\n{report.END}\nbelow\n"


def parsed(text: str = GOOD) -> report.Result:
    return report.parse(text.splitlines())


def test_a_kernel_that_loads_and_drops_has_no_problems():
    result = parsed()
    assert report.problems(result) == []
    assert result.series == "6.1"
    assert result.programs["from_pod"] == report.Program(15000, 80123, 900, 7051)


@pytest.mark.parametrize(
    ("line", "instead", "problem"),
    [
        ("done\n", "", f"{UNFINISHED} [    1.248666] reboot: Power down"),
        ("program to_pod 14000 70123 800 6051\n", "", "to_pod is not loaded"),
        ("run to_pod tcp4 2\n", "", "to_pod ran on no packet"),
        ("run to_pod tcp4 2", "run to_pod tcp4 0", "to_pod lets tcp4 from an unknown interface pass (0)"),
        (
            "attached to_pod clsact drops",
            "attached to_pod clsact passes",
            "to_pod on clsact passes, it must drop what has no endpoint",
        ),
        (
            "attached to_pod clsact drops\n",
            "",
            "to_pod on nothing is not attached, it must drop what has no endpoint",
        ),
        ("done\n", "verifier R1 invalid mem access\ndone\n", "verifier R1 invalid mem access"),
    ],
)
def test_what_is_missing_or_wrong_is_said(line, instead, problem):
    assert report.problems(parsed(GOOD.replace(line, instead))) == [problem]


def test_silence_is_a_problem():
    assert report.problems(parsed("")) == [
        f"{UNFINISHED} (none)",
        "from_pod is not loaded",
        "to_pod is not loaded",
    ]


def test_kernels_that_disagree_are_named():
    other = parsed(GOOD.replace("6.1.0-50", "6.12.95").replace("run from_pod arp 0", "run from_pod arp 2"))
    assert report.differences([parsed(), parsed()]) == []
    assert report.differences([parsed(), other]) == ["from_pod answers arp with 0 on 6.1, 2 on 6.12"]


def test_the_table_has_a_row_for_each_program_of_each_kernel():
    table = report.table([parsed()], emulated=["6.1"])
    assert "| 6.1 | `from_pod` | clsact | 15,000 | 80,123 | 900 | 7.1 ms (emulated) |" in table.splitlines()
    assert len(table.splitlines()) == 4


def test_the_page_changes_with_a_count_but_not_with_a_time_alone():
    first = report.update(PAGE, report.table([parsed()], []))
    assert first.startswith("above\n")
    assert first.endswith("below\n")
    slower = parsed(GOOD.replace("7051", "9999"))
    assert report.update(first, report.table([slower], [])) == first
    bigger = parsed(GOOD.replace("80123", "80124"))
    assert "80,124" in report.update(first, report.table([bigger], []))


def test_a_page_without_markers_is_refused():
    with pytest.raises(ValueError, match="has no"):
        report.update("above\n", "table")
