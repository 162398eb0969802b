"""The inbox once more: signals that are to be assessed anew."""
