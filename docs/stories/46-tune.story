# The check warns of caches that each boot compiles again; a pull request that keeps them makes the next boot shorter.
given speed 60

@dev /model check coder-chat
expect "compile caches (XDG_CACHE_HOME) are lost with the pod" within 30s
@dev /model tune coder-chat
expect "/models/compile-cache/" within 30s
github checks pass
@lead clicks "Approve & roll out"
expect "is rolled out" within 60s
@dev /model check coder-chat
expect "No problems found" within 30s
@dev /model tune coder-chat
expect "nothing would change" within 30s
