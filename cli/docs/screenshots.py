#!/usr/bin/env python3
"""Makes the pictures beside this file: what the program really prints, on a cache of its own.

    pip install rich; cli/docs/screenshots.py target/release/objcache
"""
import os, pathlib, subprocess, sys, tempfile

from rich.console import Console
from rich.text import Text

HERE = pathlib.Path(__file__).resolve().parent
KERNELS = HERE.parents[1] / "kernels"
PROGRAM = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "target/release/objcache").resolve()


def main():
    with tempfile.TemporaryDirectory() as place:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OBJCACHE_")}
        environment |= {"HOME": place, "XDG_CACHE_HOME": f"{place}/.cache", "XDG_CONFIG_HOME": f"{place}/.config"}
        environment["OBJCACHE_MAX_SIZE"] = "1G"
        for kernel in KERNELS.iterdir():
            (pathlib.Path(place) / kernel.name).write_bytes(kernel.read_bytes())

        def run(*words):
            done = subprocess.run([PROGRAM, *words], env=environment, cwd=place, capture_output=True, text=True)
            return (done.stdout + done.stderr).replace(place, "/home/you")

        for _ in range(4):
            run("warm", "saxpy.c", "matmul.c", "primes.c", "mandelbrot.clif")
        run("compile", "matmul.c", "-O3", "--flag", "-ffast-math", "--namespace", "blas", "-o", "out.o")
        picture("why", [(words, run(*words.split()[1:], "--color", "always")) for words in ("objcache why", "objcache why saxpy.c -O3")])
        picture("stats", [(words, run(*words.split()[1:], "--color", "always")) for words in ("objcache stats --latency", "objcache top")])
        environment["OBJCACHE_MAXSIZE"] = "500M"
        picture("doctor", [("OBJCACHE_MAXSIZE=500M objcache doctor", run("doctor", "--color", "always"))])


def picture(name, screens):
    console = Console(record=True, width=112, file=open(os.devnull, "w"), force_terminal=True)
    for words, said in screens:
        console.print(Text.assemble(("$ ", "bold green"), (words, "bold")))
        console.print(Text.from_ansi(said.rstrip()), soft_wrap=False)
        console.print()
    console.save_svg(str(HERE / f"{name}.svg"), title="objcache", unique_id=name)


main()
