"""The three annexes of the plan, as workbooks that look like the official forms (policy rows 49-52)."""
