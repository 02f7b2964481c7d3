"""Fails where the product's files or folders need each other in a circle. Standard library only.

  check_circles.py ROOT [OBJECT...]

Quoted includes: a unit is x.c with its x.h; a header without a .c is looked through (private headers join the units that
include them). Objects (NAME.c.o of the product's libraries, read by nm): a unit that calls a function of another needs it,
whoever declared it. Folders: includes alone, because the registry may name every backend.

The circles that are known are listed below. The list only shrinks: a row that is open again fails too, until it is gone."""
import os, re, subprocess, sys

KNOWN_UNITS = []
KNOWN_FOLDERS = []


def circles(graph):
    """Strongly connected components of more than one node (Tarjan, without recursion)."""
    index, low, stack, on, found, counter = {}, {}, [], set(), [], 0
    for start in sorted(graph):
        work = [(start, None)] if start not in index else []
        while work:
            node, successors = work.pop()
            if successors is None:
                index[node] = low[node] = counter
                counter += 1
                stack.append(node)
                on.add(node)
                successors = iter(sorted(graph.get(node, ())))
            for other in successors:
                if other not in index:
                    work += [(node, successors), (other, None)]
                    break
                if other in on:
                    low[node] = min(low[node], low[other])
            else:
                if low[node] == index[node]:
                    at = stack.index(node)
                    if len(stack) - at > 1:
                        found.append(set(stack[at:]))
                    on -= set(stack[at:])
                    del stack[at:]
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
    return found


def includes(root):
    """(file, included file), both as paths from the root."""
    for top in ("backends", "cli", "quantizer", "runtime", "shaders"):
        for folder, _, files in os.walk(os.path.join(root, top)):
            for name in files:
                if name.endswith((".c", ".h")):
                    path = os.path.join(folder, name)
                    with open(path, encoding="utf-8") as f:
                        for included in re.findall(r'^[ \t]*#[ \t]*include[ \t]*"([^"]*)"', f.read(), re.M):
                            yield os.path.relpath(path, root), included


def unit_graph(root, pairs):
    def unit(path):
        stem = path[:-2]
        return stem if path.endswith(".c") or os.path.exists(os.path.join(root, stem + ".c")) else path

    direct = {}
    for path, included in pairs:
        direct.setdefault(unit(path), set()).add(unit(included))

    def through(node, seen):
        for other in direct.get(node, ()):
            if not other.endswith(".h"):
                yield other
            elif other not in seen:
                seen.add(other)
                yield from through(other, seen)
    return {node: {x for x in through(node, set()) if x != node} for node in direct if not node.endswith(".h")}


def call_graph(objects):
    defined, wanted = {}, {}
    table = subprocess.run(["nm", "-A", *objects], capture_output=True, text=True, check=True).stdout if objects else ""
    for line in table.splitlines():
        path, words = line.split(":", 1)[0], line.split(":", 1)[1].split()
        unit = re.sub(r".*\.dir/", "", path)[: -len(".c.o")]
        if len(words) == 3 and words[1] in "TDBRV":
            defined[words[2]] = unit
        elif len(words) == 2 and words[0] == "U":
            wanted.setdefault(unit, set()).add(words[1])
    return {unit: {defined[name] for name in names if name in defined} - {unit} for unit, names in wanted.items()}


def main():
    root = sys.argv[1]
    objects = [x for x in map(os.path.normpath, sys.argv[2:]) if re.search(r"\.dir/(backends|cli|quantizer|runtime)/.*\.c\.o$", x)]
    pairs = list(includes(root))
    folders, units = {}, unit_graph(root, pairs)
    for path, included in pairs:
        if os.path.dirname(path) != os.path.dirname(included):
            folders.setdefault(os.path.dirname(path), set()).add(os.path.dirname(included))
    calls = call_graph(objects)
    if len(units) < 50 or len(pairs) < 500 or (sys.argv[2:] and len(calls) < 50):
        sys.exit(f"only {len(units)} units, {len(pairs)} includes, {len(calls)} objects: this check looks in the wrong place")
    failed = False
    for what, found, known in (("units", circles(units) + circles(calls), KNOWN_UNITS), ("folders", circles(folders), KNOWN_FOLDERS)):
        for circle in found:
            if not any(circle <= old for old in known):
                failed = True
                print(f"a circle of {what}: {', '.join(sorted(circle))}")
        for old in known if objects else []:
            if not any(circle <= old for circle in found):
                failed = True
                print(f"no circle any more: {', '.join(sorted(old))}; remove its row from tests/check_circles.py")
    print(f"{len(units)} units, {len(pairs)} includes, {len(calls)} objects; {len(KNOWN_UNITS) + len(KNOWN_FOLDERS)} known circles")
    sys.exit(failed)


main()
