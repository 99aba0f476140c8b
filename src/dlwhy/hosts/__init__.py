"""Who calls dlopen: from the words of a HOST to the settings of a process."""
