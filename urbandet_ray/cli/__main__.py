"""python -m urbandet_ray.cli"""

from urbandet_ray.cli import main

main()
