"""What a governed call costs, beside a direct one and beside LiteLLM's proxy, in one run.

Every figure is a ratio within a run or CPU time read from the kernel, because machines are shared and noisy. All
traffic stays on the loopback interface and every loop is bounded in count or time.
"""
