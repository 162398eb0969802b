"""The stored entity risk policy of each tenant; its rules are in `risk.policy`."""
