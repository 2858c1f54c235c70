"""Read the public names of packages: from sources, and from imports in the sandbox where there are none."""
