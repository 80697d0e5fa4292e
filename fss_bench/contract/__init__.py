"""The contract of methods as checks: for `fss-bench check-method`, and for the tests of plug-ins.

A plug-in's whole test:

    @pytest.mark.parametrize("check", checks("my_method"), ids=str)
    def test_contract(check: Check) -> None:
        check()
"""

from fss_bench.contract.checking import Check, ContractError, NotApplicable, Result
from fss_bench.contract.promises import PROMISES, checks, results

__all__ = ["PROMISES", "Check", "ContractError", "NotApplicable", "Result", "checks", "results"]
