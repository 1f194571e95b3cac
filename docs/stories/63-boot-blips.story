# Temporary problems do not end a boot: a late Secret, a pull that times out, a zone that is out of stock.
given speed 60

break secret-sync-blip
break pull-blip
break zone-blip
@dev /gpu up coder-chat
@lead clicks "Approve"
expect "GCE out of resources" within 30s
expect "i/o timeout" within 30s
expect "failed to sync secret cache" within 30s
expect "coder-chat is up and answers" within 60s
