body='{"order": {"id": 19}}' stamp=1795913985 nonce=5a1c5668a4277b2ff1da2cbef9709d76 signature=WrmzzMW2boFaFmG9FDjA9DeulijY1JhLj8WsDiYTvdw
