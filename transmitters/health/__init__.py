"""How push streams do: failures in a row, and until when they are left alone."""
