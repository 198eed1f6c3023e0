"""What runs as init of a lab's private world: `python -m flowvis.lab OPTIONS`."""

import sys

from flowvis.lab.inside import main

sys.exit(main(sys.argv[1]))
