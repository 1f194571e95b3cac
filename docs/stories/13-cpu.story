# An embedding model and a small reranker run on the CPU and sync automatically: they answer as soon as their pull request
# is merged, without the GPU.
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
@dev /model add ranker BAAI/bge-reranker-base like=embeddings
expect "Pull request #2" within 60s
github checks pass
@lead clicks "Approve & roll out"
expect "ranker is rolled out" within 120s
@dev /model smoke ranker
expect "passed" within 60s
expect "does not count the cost of these engines' rankings" within 30s
@dev /model check ranker
expect "No problems found" within 30s
