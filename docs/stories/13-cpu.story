# An embeddings endpoint runs on the CPU, syncs automatically and holds no GPU: it answers right after its pull request.
given speed 60
@dev /model add vectors BAAI/bge-small-en-v1.5 like=embeddings
expect "Pull request #1" within 60s
github checks pass
@lead clicks "Approve & roll out"
expect "vectors is rolled out" within 120s
@dev /model list
expect "vectors"
@dev /model smoke vectors
expect "passed" within 60s
@dev /model check
expect "No problems found" within 30s
